"""Hugging Face checkpoints and PEFT adapters in and out, without torch: one table of names used both ways."""
