import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** Pushes by the JDK's HttpURLConnection. A POST without output has no Content-Length. */
public final class UrlConnection {
    public static void main(String[] args) throws Exception {
        // Connections are kept per process, so that "new ones" is a setting of it. The program's only argument says so.
        System.setProperty("http.keepAlive", String.valueOf(args[0].equals("kept")));
        Pushes.run(() -> UrlConnection::push);
    }

    private static String push(String url, Map<String, String> fields) throws Exception {
        HttpURLConnection connection = (HttpURLConnection) URI.create(url).toURL().openConnection();
        connection.setRequestMethod("POST");
        if (fields != null) {
            connection.setDoOutput(true);
            try (OutputStream out = connection.getOutputStream()) {
                out.write(Pushes.form(fields).getBytes(StandardCharsets.US_ASCII));
            }
        }
        int status = connection.getResponseCode();
        try (InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            if (in != null) {
                in.readAllBytes();
            }
        }
        return Pushes.answer(status, connection.getHeaderField("X-Push-Id"));
    }
}
