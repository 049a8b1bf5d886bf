# A thousand workers of a sweep killed at random instants: see test_sweep_store.c.
set -u
SWEEP_KILLS=1000 exec "$BUILD_DIR/tests/test_sweep_store"
