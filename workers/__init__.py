"""Ray: two pools of actors and the dispatcher between them. Imports pipeline, never prefect."""
