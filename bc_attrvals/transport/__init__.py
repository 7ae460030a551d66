"""The only place that uses aiohttp: one request out, status, headers and bytes in.

Imports core alone.
"""
