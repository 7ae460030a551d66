"""One store's quota and its three PUTs at once, shared by all processes that work on it.

    RedisQuota (quota.py)     queues requests, one task that calls, on its own if it must
      options.py              its arguments
      holdings.py             what the process holds, waits for and has to tell
      bell.py                 when the server is to be called
      link.py, address.py     the wire to the server, and where it is
      grants.lua              in the server: who may send now, and what the answers taught
      roster.py               who else there is, heard from the server
      fallback.py, alone.py   what one process may send without the others, and who gets it

It is given as `Store(quota=...)`, behind the scheduler's gate, and needs `bc_attrvals[redis]`: a
Redis of version 6 and up or a Valkey, one server or one with replicas. On a Redis Cluster a grant
is told on one node only, so name one primary there; with ACLs allow `EVALSHA`, `SCRIPT`, `GET`,
`SET`, `TIME`, `PUBLISH`, `PUBSUB`, `SUBSCRIBE` and `PING`, and `SELECT` where the URL names a
database other than 0, on keys and channels that begin with the namespace.

How a request travels. A process says what it holds, what ended with which headers and how many
requests wait, in one call of one script. The script grants in order and tells each process of its
grants, over a channel where it is another's. So a request costs one call while there is work (what
ended and what comes next go together), two when it comes alone; windows cost one call for each
process that waits at their edge; a process that waits renews its lease every 0.3 `lease_s`, and an
idle one sends a ping every 5 s. When one comes or goes, the ids of all are told to all. Nobody
polls.

On paper: 5,000 stores and 100 workers.
- Calls. A store on the service's largest published quota, 450 in 30 s, sends 15 requests a second;
  5,000 such stores, all busy at once, 75,000 a second, which is beyond one server. On 150 in 30 s,
  5 a second each, 25,000. In practice a worker of one core sends some 300 to 1,000 requests a
  second over TLS, so 100 workers are at 30,000 to 100,000 at the most. A nightly run of 5,000
  stores with 400 jobs at once (four a worker) on 150 in 30 s is 400 x 5 = 2,000 calls a second.
- Cost. A call took 0.2 ms of the server's core for up to eight processes on the store (0.35 for
  20, 1.2 for 100; Valkey 9 on a slow shared core), so about 5,000 calls a second fill it: that run
  takes two fifths of it.
- Memory. A busy store of eight processes is 0.7 KB, in one key that goes 60 s (or two windows)
  after its last call; 5,000 are 4 MB.
- Connections. Two for each open Store: 800 for those 400 jobs, with 80 pings a second. Servers
  take 10,000 by default.
- Where it stops. First at the one core the scripts run on, then at `maxclients`. Stores share
  nothing, so beyond that give each part of the stores a server of its own, by the hash of their
  name. A hundred processes on one and the same store cost six times as much a call as eight.
"""

from bc_attrvals.shared_quota.quota import RedisQuota

__all__ = ["RedisQuota"]
