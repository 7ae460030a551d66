"""Admits requests and sends them: slots, quota, fairness, retries.

In: requests of `core/requests.py`. Out: their answers, or typed errors. Imports errors, core and
events; the transport is a Protocol here.
"""
