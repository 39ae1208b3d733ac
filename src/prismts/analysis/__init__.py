"""Why a model works, and which series are alike."""
