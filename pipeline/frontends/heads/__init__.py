"""What stands on a trunk and gives class scores; shared by the front ends of a family."""
