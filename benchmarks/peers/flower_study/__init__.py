"""The demo's study written for plain Flower 1.41, beside `benchmarks/demo/study.toml`.

The app in ``app/`` learns the same model from the same tables under the same noise: columns are
checked and scaled, each consumer gives one clipped vector, sampling is Poisson, each member adds
its share of the noise, steps are Adam's, iterates are averaged, failed rounds are tried again. It
is as short as is still pleasant to read. It leaves out what a study's file has without a line:
secure aggregation that holds against the coordinator, exact integer noise, consent to signed terms,
budgets over studies, evidence, and going on after a crash.
"""
