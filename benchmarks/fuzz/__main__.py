import sys

from benchmarks.fuzz import main

sys.exit(main())
