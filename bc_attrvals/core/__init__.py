"""The pure part of the client: values in, values out; no network, no clock, no event loop."""
