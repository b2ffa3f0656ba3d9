#!/bin/bash
# Java's HttpURLConnection sends a POST a second time when the connection that it reuses closes without an answer.
#
# Guess:  an IOException: the newer java.net.http.HttpClient gives one for POST, and repeats only GET.
# Really: the POST is sent again on a new connection, and the caller sees 200 and nothing else.
# So:     the two HTTP clients of one JDK differ here; a server cannot know which of them it talks to.
# Seen:   OpenJDK 17.0.21 of Debian 12.
. "$(dirname "$0")/lib/setup.bash"
version=17.0.21.1+2-1~deb12u1
deb openjdk-17-jre-headless=$version openjdk-17-jdk-headless=$version libjpeg62-turbo liblcms2-2 2>/dev/null
read -r port <<<"$(ports 1)"
start python3 "$lib/upstream.py" "$port"
listening "$port"
cat >Post.java <<'JAVA'
import java.net.*;

public class Post {
    public static void main(String[] arguments) throws Exception {
        for (int i = 0; i < 2; i++) {
            HttpURLConnection connection = (HttpURLConnection) new URL(arguments[0]).openConnection();
            connection.setRequestMethod("POST");
            connection.setDoOutput(true);
            connection.getOutputStream().write("pay=1".getBytes());
            System.out.print(connection.getResponseCode() + " ");
            connection.getInputStream().readAllBytes();
        }
    }
}
JAVA
java=$root/usr/lib/jvm/java-17-openjdk-amd64/bin/java
# Debian's packages link their settings into /etc: here they are in the folder.
find "$root/usr/lib/jvm/java-17-openjdk-amd64" -type l -lname '/etc/*' | while read -r link; do ln -sfn "$root$(readlink "$link")" "$link"; done
expect "what the caller saw" "$(LD_LIBRARY_PATH=$libraries "$java" Post.java "http://127.0.0.1:$port/once")" "200 200 "
expect "what the server read" "$(paste -sd ';' started.txt)" "POST /once 1;POST /once 2;POST /once 1"
