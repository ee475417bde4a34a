"""Problems, their order, their prompts, and the batch that goes from rollout to objective."""
