"""How bytes move and where tasks wait: aiohttp and tenacity. Decisions are made in `sansio`."""
