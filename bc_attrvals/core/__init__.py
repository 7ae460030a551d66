"""The pure part of the client: values in, values out; no I/O, no clock, no event loop."""
