"""The words and the rules: pure, synchronous, without clock or I/O."""
