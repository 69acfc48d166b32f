"""Classification networks without their classifier: the trunks that heads stand on."""
