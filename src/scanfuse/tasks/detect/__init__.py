"""What systems that detect objects in pairs of images share."""
