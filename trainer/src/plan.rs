//! Spec and environment -> `RunPlan`: everything a run needs, resolved.
