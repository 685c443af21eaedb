"""Attribution models: rules, Markov, Shapley, Poisson, and the set of models of a tenant."""
