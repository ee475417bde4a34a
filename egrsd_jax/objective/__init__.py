"""The objective: reward, advantage, gate and losses. Arrays in, arrays out; it knows no model."""
