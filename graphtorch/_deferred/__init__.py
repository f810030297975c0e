"""What a user writes, recorded: storages, views, tensors, pending graphs and how they run."""
