"""Many runs, one table: comparisons over methods and seeds that go on where they were interrupted."""
