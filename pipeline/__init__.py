"""The domain of densemask: images in, masks and measures out. Imports neither ray nor prefect."""
