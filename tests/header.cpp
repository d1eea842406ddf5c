// Whose compilation makes the precompiled header of all tests (CMakeLists.txt).
