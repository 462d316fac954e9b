"""Taking certificates back."""
