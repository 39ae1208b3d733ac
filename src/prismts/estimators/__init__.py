"""What a user holds: objects with fit and predict, in the manner of scikit-learn."""
