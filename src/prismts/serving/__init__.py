"""What a trained model becomes outside of this package: one file that answers by itself."""
