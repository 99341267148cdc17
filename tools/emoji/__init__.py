"""How pagopt's embedded emoji model is made: artwork, autoencoder, transformer, scorer, export."""
