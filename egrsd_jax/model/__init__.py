"""The policy: Qwen3 in Flax, its cache, its sharding, its adapters and its checkpoints. It knows no losses."""
