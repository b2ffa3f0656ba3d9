-- wrk script of the echo workload: POST 10 KiB. wrk formats the request once, so Lua costs nothing per request.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("0123456789abcdef", 640)
