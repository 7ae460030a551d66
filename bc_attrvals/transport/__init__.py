"""The only package that makes requests with aiohttp: one request out, status, headers, bytes in.

Imports errors and core only.
"""
