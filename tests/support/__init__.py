"""What several groups of tests share and no user needs."""
