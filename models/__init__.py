"""The tensor side of the project: the method, its training, its evaluation, and the proxy world.

Nothing in here knows about tables, jobs, schedulers or reports, and nothing in here imports `harness`.
`models.config` is free of torch, so that the planning side can nest its schemas; every other module may be heavy.
"""
