"""What people look at: metric writers, pictures and tables."""
