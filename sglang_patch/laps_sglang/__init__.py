"""SGLang plugin of sglang-laps: requests pause and resume inside a running SGLang worker.

The way of the data, once per scheduler iteration:

    SGLang result -> ledger (StepReport) -> planner process (service or embedded engine) -> Plan
        -> every rank (with SGLang's own broadcast) -> worker: who is admitted, who pauses

One module a concern: `plugin` (entry point), `settings` (flags), `hooks` (where SGLang is tapped),
`compat` (all that depends on a version of SGLang), `modes` (what is refused), `worker` (applies
plans), `surgery` and `paused` (rows between batches), `ledger` (what happened), `hints` (what
clients say), `planner` (the way to the planner process), `pipe` (values between the two). In the
planner process: `decider` (who decides) and `link` (the stream to the service).
"""
