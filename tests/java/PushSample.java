import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;

/**
 * Pushes the platform page's own sample receipt and sample reply, as the platform does: a form POST in UTF-8.
 *
 * <p>{@code java PushSample.java URL}: one line per push, {@code STATUS BODY}; exit code 1 if a status is not 200.
 */
public final class PushSample {
    private static final String[][] RECEIPT = {
        {"mobile", "1508092****"}, {"taskid", "123"}, {"status", "1"}, {"receivetime", "2019-07-23 17:00:00"},
    };
    private static final String[][] REPLY = {
        // 收到, escaped so that the encoding javac assumes for this file does not matter
        {"mobile", "1508092****"}, {"taskid", "123"}, {"content", "\u6536\u5230"}, {"receivetime", "2019-07-23 17:00:00"},
    };

    public static void main(String[] args) throws IOException {
        if (args.length != 1) {
            System.err.println("usage: java PushSample.java URL");
            System.exit(2);
        }
        boolean good = true;
        for (String[][] fields : new String[][][] {RECEIPT, REPLY}) {
            good &= push(args[0], fields) == 200;
        }
        System.exit(good ? 0 : 1);
    }

    private static int push(String url, String[][] fields) throws IOException {
        byte[] form = form(fields).getBytes(StandardCharsets.US_ASCII);
        HttpURLConnection connection = (HttpURLConnection) URI.create(url).toURL().openConnection();
        connection.setRequestMethod("POST");
        connection.setConnectTimeout(10_000);
        connection.setReadTimeout(30_000);
        connection.setInstanceFollowRedirects(false);
        connection.setDoOutput(true);
        connection.setRequestProperty("Content-Type", "application/x-www-form-urlencoded;charset=utf-8");
        connection.setFixedLengthStreamingMode(form.length);
        try (OutputStream out = connection.getOutputStream()) {
            out.write(form);
        }
        int status = connection.getResponseCode();
        System.out.println(status + " " + body(connection, status));
        return status;
    }

    private static String form(String[][] fields) {
        StringBuilder form = new StringBuilder();
        for (String[] field : fields) {
            form.append(form.length() == 0 ? "" : "&")
                    .append(URLEncoder.encode(field[0], StandardCharsets.UTF_8))
                    .append('=')
                    .append(URLEncoder.encode(field[1], StandardCharsets.UTF_8));
        }
        return form.toString();
    }

    /** The answer's text on one line; an error status has its own stream, which may be none. */
    private static String body(HttpURLConnection connection, int status) throws IOException {
        try (InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            return in == null ? "" : new String(in.readAllBytes(), StandardCharsets.UTF_8).strip().replace("\n", " ");
        }
    }
}
