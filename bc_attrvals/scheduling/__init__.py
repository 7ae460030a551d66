"""Decides who may send now, and sends: slots, quota, fairness, retries.

In: requests of `core/requests.py`. Out: their answers, or typed errors. Imports core and events;
the transport is a Protocol here.
"""
