"""One store's quota and its three PUTs at once, shared by all processes that work on it.

    RedisQuota (quota.py)     the arguments, and the protocol of every quota
      options.py              the arguments, checked
      member.py               one process as a member: the task that calls the server
      leases.py               what it holds, what waits, what ended unreported
      wake_up.py              when to call the server
      server_link.py          the wire to the server
      grants.lua              in the server: who may send now, and what the answers taught
      membership.py           which other processes there are
      degraded.py             grants without the server

In: requests for leases, by `scheduling`. Out: leases, and what is known of the quota. Imports
scheduling, events and core. `README.md` beside this file has the reference: servers, failures,
load.
"""

from bc_attrvals.shared_quota.quota import RedisQuota

__all__ = ["RedisQuota"]
