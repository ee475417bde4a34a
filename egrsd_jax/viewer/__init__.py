"""The token viewer: completions with their tokens' numbers, as one HTML page."""
