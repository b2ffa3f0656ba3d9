cdef int write_file(
    const char* path, const char* fresh, const char* first, size_t first_size, const char* second, size_t second_size
) noexcept nogil
