"""Keep transformers from printing: it draws its own bars and logs while it loads, and a library prints nothing."""

import contextlib
import io
import warnings
from collections.abc import Iterator

from huggingface_hub.utils import logging as hub
from transformers.utils import logging


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on standard error, no bars and no warnings inside the block; settings are put back after it."""
    level, hub_level, bars = logging.get_verbosity(), hub.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub.set_verbosity(logging.CRITICAL)  # its retries are told, once, in the error that follows
    logging.disable_progress_bar()
    try:
        # the GGUF reader's bar has no switch
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        hub.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()
