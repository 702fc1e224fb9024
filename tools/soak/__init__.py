"""The soak run: the whole suite for minutes or days, with faults, watched for growth and loss."""
