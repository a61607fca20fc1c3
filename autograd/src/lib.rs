//! The engine: a tensor language, its gradients, and the schedule that runs it.
