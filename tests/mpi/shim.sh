# Sourced by the scripts here that run the CUDA module on the shim.
LD_LIBRARY_PATH=$(cd "$builddir" && pwd)/tests/shim${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
