import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Map;

/** Pushes by the JDK's java.net.http, which asks for h2c with every push over plain HTTP. */
public final class JavaNetHttp {
    public static void main(String[] args) throws Exception {
        Pushes.run(() -> {
            HttpClient client = HttpClient.newHttpClient();
            return (url, fields) -> push(client, url, fields);
        });
    }

    private static String push(HttpClient client, String url, Map<String, String> fields) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url));
        if (fields == null) {
            request.POST(BodyPublishers.noBody());
        } else {
            request.header("Content-Type", "application/x-www-form-urlencoded;charset=utf-8")
                    .POST(BodyPublishers.ofString(Pushes.form(fields)));
        }
        HttpResponse<String> response = client.send(request.build(), BodyHandlers.ofString());
        return Pushes.answer(response.statusCode(), response.headers().firstValue("X-Push-Id").orElse(null));
    }
}
