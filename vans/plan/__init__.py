"""What a scale takes before it is run: FLOPs, memory, disk and hours by arithmetic from the models' configurations."""
