"""Knowledge neurons: `attribution` by integrated gradients, the neurons that wordings share (`shared`), what they do (`effects`)
and what they write (`meaning`), and `survey` for many facts."""
