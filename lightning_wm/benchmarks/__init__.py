"""What `bench` measures, each beside a peer."""
