"""One method per file. The registry imports every module of this folder, so a new file is a new method."""
