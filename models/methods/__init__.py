"""One package for each method; `registry` lists their stages."""
