"""What parent and worker say to each other: messages as records, frames on a socketpair, descriptors beside them."""
